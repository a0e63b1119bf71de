"""What tells one row of results from another, and names of settings with a meaning of their own."""

from __future__ import annotations

KEYS: dict[str, object] = {
    "dataset": "",
    "run": "",
    "n_train": 0,
    "seed": 0,
    "lm": "",
    "setting": "",
    "tuned_on": "",
    "constrained": False,
    "embedded_by": "",
    "worded": "",
}
"""The keys of a row of results, and what they are where they mean nothing."""

FULL = "full"
"""What opens the run of models that learnt the whole training split."""

OWN = "study"
"""What the study's own LLM and settings are called beside others."""

SHUFFLED, MATCHED = "shuffled", "matched"
"""Settings with a meaning of their own: answers of other users; the main size's steps on fewer
samples."""

MERGED = "merged"
"""Another such setting: nothing was tuned, adapters of several data sets were averaged."""
AS_JOINT = "as_joint"
"""Another: the samples of one data set, learnt with the settings of the joint model."""
PICKED = "picked."
"""What opens the setting of an adapter that learnt selected samples; then '<arm>.<draw>'."""


def reserved(setting: str) -> bool:
    """Whether a setting has a meaning of its own, and is not one of those a study tries."""
    return setting in (SHUFFLED, MATCHED, MERGED, AS_JOINT) or setting.startswith(PICKED)
