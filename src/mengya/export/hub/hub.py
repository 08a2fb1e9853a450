"""What a push asks of a hub, and what its failures mean.

`push_folder` (push.py) takes any `Hub`; huggingface.py and modelscope.py are such, over their own packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mengya.errors import UserError
from mengya.export.hub.files import PushedFile
from mengya.export.hub.options import HubOptions
from mengya.runtime.hub.failure import HubFailure


class Hub(Protocol):
    """
    Attributes:
        key: as in to=KEY.
        name: for people.
        endpoint: address of the server.
        token_help: how to give it a token.
    """

    key: str
    name: str
    endpoint: str
    token_help: str

    def check_ready(self) -> None:
        """Refuse when the package or a token is missing, before any work.

        Raises:
            UserError: says what to type.
        """
        ...

    def create(self, options: HubOptions) -> bool:
        """Make the repository; False: it is there already. Raises HubFailure."""
        ...

    def existing(self, options: HubOptions) -> tuple[dict[str, int], bool]:
        """(name -> bytes of every file on the branch, whether it is private) of a repository that is there.
        Raises HubFailure."""
        ...

    def upload(self, files: Sequence[PushedFile], options: HubOptions, message: str) -> str:
        """Send and commit; files that the server has are not sent again. Gives the address of the commit or
        the repository. Raises HubFailure."""
        ...


def explain(failure: HubFailure, hub: Hub, options: HubOptions, again: str) -> UserError:
    """What it means, and what to type."""
    repo, said = options.repo, f" (it says: {failure.said[:300]})" if failure.said else ""
    owner = str(repo).partition("/")[0]
    match failure.status:
        case None if failure.timeout:
            text = f"{hub.endpoint} stopped answering{said}. What has arrived is kept; later type: {again}"
        case None:
            text = (
                f"{hub.endpoint} cannot be reached{said}. Check the network, and HTTPS_PROXY if you use a "
                f"proxy, then type: {again}"
            )
        case 401:
            text = f"{hub.name} does not accept the token{said}: it is mistyped or expired. {hub.token_help}"
        case 403:
            text = (
                f"the token may not write to {repo}{said}: {owner} must be you or an organization that you "
                f"may write to, and the token must have the right to write. {hub.token_help}"
            )
        case 404:
            text = (
                f"{hub.name} does not find {repo}{said}: check the name of the owner, {owner}, and the "
                f"branch; another one is {hub.key}.repo=OWNER/NAME"
            )
        case 409:
            text = (
                f"{repo} was changed or made by somebody else meanwhile{said}; type again: {again}"
            )
        case 429:
            text = f"{hub.name} wants fewer requests{said}; wait some minutes, then type: {again}"
        case status if status >= 500:
            text = f"{hub.name} has trouble of its own ({status}){said}; later type: {again}"
        case status:
            text = (
                f"{hub.name} refuses the push ({status}){said}; check {hub.key}.repo={repo}, then type: "
                f"{again}"
            )
    return UserError(text)
