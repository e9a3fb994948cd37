"""Made-up hospitals with a known truth; docs/synthetic.md says what they are and are not."""

from hymate.data.cohort.config import SyntheticConfig
from hymate.data.cohort.write import Cohort, generate_cohort, write_cohort

__all__ = ["Cohort", "SyntheticConfig", "generate_cohort", "write_cohort"]
