"""Several processes that make one update: who has what, and how it comes together.

The gradient is a sum over completions, so each process can have a part of them, as long as what
is divided by is the number of all, and what a group is compared with stays together.
"""

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from helpers import contract

if TYPE_CHECKING:
    from accelerate import Accelerator


class Processes:
    """What `helpers.train` needs of an Accelerator; without one, a single process."""

    def __init__(self, accelerator: "Accelerator | None") -> None:
        """Look who is there.

        Args:
            accelerator: of `accelerate launch`, or None.
        """
        self.accelerator = accelerator
        self.rank: int = accelerator.process_index if accelerator else 0
        self.count: int = accelerator.num_processes if accelerator else 1

    def share(self, everything: Any) -> Any:
        """This process's part of a list or tensor over all prompts or all completions.

        Args:
            everything: its length is a multiple of the number of processes.
        """
        size = len(everything) // self.count
        return everything[self.rank * size : (self.rank + 1) * size]

    def gather(self, mine: Tensor) -> Tensor:
        """The parts of all processes, one below the other.

        Args:
            mine: (n, ...) of any kind, of one shape in all processes.
        Returns:
            (n · count, ...) float or integer, as it was.
        """
        if self.accelerator is None:
            return mine
        return self.accelerator.gather(mine.to(self.accelerator.device)).to(mine.device)

    def add(self, mine: Tensor) -> Tensor:
        """The sum over all processes.

        Args:
            mine: (...) float, of one shape in all processes.
        Returns:
            (...) float.
        """
        if self.accelerator is None:
            return mine
        return self.accelerator.reduce(mine.to(self.accelerator.device), "sum").to(mine.device)

    def columns(self, mine: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """`gather` for several columns of numbers at once.

        Args:
            mine: by name, (n,) each, of any type.
            device: on which processes talk.
        Returns:
            By name, (n · count,) float64, on the CPU.
        """
        table = torch.stack([column.detach().cpu().double() for column in mine.values()], dim=1)
        if self.accelerator:
            table = self.gather(table.to(device)).cpu()
        return dict(zip(mine, table.unbind(1), strict=True))

    def check_same(self, mine: dict[str, str], device: torch.device) -> None:
        """Refuse to begin where processes are not parts of one run.

        Args:
            mine: what must be the same, name → value or digest; the same names in all.
            device: on which processes talk.
        Raises:
            ValueError: another process has something else; the message names it.
        """
        numbers = [
            int.from_bytes(hashlib.sha256(value.encode()).digest()[:7]) for value in mine.values()
        ]
        table = self.gather(torch.tensor([numbers], device=device))  # (count, names)
        for name, column in zip(mine, table.T.tolist(), strict=True):
            if len(set(column)) > 1:
                raise ValueError(
                    f"the processes would begin with different {name}: process {self.rank} has "
                    f"{mine[name]!r:.200}. Load or draw the same in each, and let all see the same "
                    "folder of checkpoints."
                )


contract.hold(globals())
