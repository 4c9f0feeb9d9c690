"""The training loop of the course, and what it stands on: take this folder home, it works alone.

Read five files, in this order, each in a few minutes:

    logprobs → losses → advantages → rollout → train

that is: score a text, make a loss, judge a text, write texts, and one step after another.
The others make it fast (`scoring`, `decoding`, `cpu`), sure (`contract`, `settings`,
`checkpoints`, `identity`, `runlog`), wide (`models`, `probe`, `processes`) or richer (`kl`,
`value_head`); none of them is needed to follow it.
"""

from helpers import cpu

__version__ = "0.1.0"

cpu.settle()
