"""A study: the file, its arms and their stages.

    study = load_study(Path("studies/quickstart.yaml"))
    study.arms[0].stages.tune[0].key

The same study built in Python, `build_study(StudyFile(...), name="mine")`, has the same keys. Nothing here loads torch.
"""

from campana.study.build import Arm, Study, build_study, load_study
from campana.study.schema import StudyFile
from campana.study.wiring import ArmStages

__all__ = ["Arm", "ArmStages", "Study", "StudyFile", "build_study", "load_study"]
