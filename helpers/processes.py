"""Several processes that make one update: who has what, and how it comes together.

The gradient is a sum over completions, so each process can have a part of them, as long as what
is divided by is the number of all, and what a group is compared with stays together.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

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
            mine: (n, ...) of one shape in all processes.
        Returns:
            (n · count, ...) float or integer, as it was.
        """
        return self.accelerator.gather(mine) if self.accelerator else mine

    def add(self, mine: Tensor) -> Tensor:
        """The sum over all processes.

        Args:
            mine: (...) float, of one shape in all processes.
        Returns:
            (...) float.
        """
        return self.accelerator.reduce(mine, "sum") if self.accelerator else mine

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

    def check_same(self, number: int, device: torch.device) -> None:
        """Refuse to begin at different steps.

        Args:
            number: of this process's step.
            device: on which processes talk.
        Raises:
            ValueError: another process begins elsewhere.
        """
        numbers = self.gather(torch.tensor([number], device=device)).tolist()
        if len(set(numbers)) > 1:
            raise ValueError(
                f"the processes would begin at the steps {numbers}: do all see the same folder of "
                "checkpoints?"
            )
