from .read import read_official as read_official
from .release import RELEASES as RELEASES
from .release import OfficialData as OfficialData
from .release import Protocol as Protocol
from .release import find_videos as find_videos
