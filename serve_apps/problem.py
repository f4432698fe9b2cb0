"""Problem details (RFC 9457), the body of every refusal over HTTP."""

from pydantic import BaseModel

PROBLEM = "application/problem+json"


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
