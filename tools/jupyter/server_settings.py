"""JupyterLab's settings for `tools/lab.py`: a new token each time, whatever other settings say.

The server prints a token that it made itself, so that a reader without a screen can open the
address; on the command line every user of the machine could read it.
"""

import secrets
from typing import Any

from jupyter_server.auth.identity import PasswordIdentityProvider


class OwnToken(PasswordIdentityProvider):
    """As without any settings of somebody's own, which may have switched tokens off."""

    def __init__(self, **kwargs: Any) -> None:
        """Make the token; what a configuration says of it came before."""
        super().__init__(**kwargs)
        self.token = secrets.token_hex(24)
        self.token_generated = True  # so that it is printed


get_config().ServerApp.identity_provider_class = OwnToken  # type: ignore[name-defined]  # noqa: F821
