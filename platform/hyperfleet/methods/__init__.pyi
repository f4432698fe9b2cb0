from .base import Examples as Examples
from .base import Method as Method
from .base import TaskModel as TaskModel
from .base import personalizes as personalizes
from .catalogue import METHODS as METHODS
from .catalogue import method as method
from .stage import Stage as Stage
