"""Who may ask: users with passwords, or whoever knows a token."""

import base64
import binascii
import copy
import hmac
from pathlib import Path

from foveal.foundation.errors import UserError
from foveal.foundation.files import MAX_SETTINGS, read_bytes


class Credentials:
    """Passwords by user, and tokens.

    A token is accepted as `Authorization: Bearer TOKEN`, and as the password of any user, as
    browsers ask for a user and a password and for nothing else.

    Args:
        passwords: by user.
        tokens: each as good as a user with a password.

    Raises:
        UserError: there are none, or one is empty.
    """

    def __init__(self, passwords: dict[str, str], tokens: list[str]):
        if not passwords and not tokens:
            raise UserError("Expected at least one line, user:password or a token, but got none.")
        if not all([*passwords, *passwords.values(), *tokens]):
            raise UserError("Expected user:password, but one of the two is empty.")
        self._pairs = [f"{user}:{password}".encode() for user, password in passwords.items()]
        self._tokens = [token.encode() for token in tokens]

    @classmethod
    def read(cls, path: Path) -> "Credentials":
        """Return the credentials of a file with `user:password` or a token in each line.

        Empty lines and those that begin with # do not count.

        Raises:
            UserError: the file cannot be read, or holds none.
        """
        try:
            text = read_bytes(path, MAX_SETTINGS).decode("utf-8")
        except (OSError, UnicodeDecodeError, UserError) as error:
            raise UserError(f"Cannot read {path}: {error}") from None
        passwords, tokens = {}, []
        for line in filter(None, map(str.strip, text.splitlines())):
            user, colon, password = line.partition(":")
            if line.startswith("#"):
                continue
            if colon:
                passwords[user] = password
            else:
                tokens.append(line)
        return cls(passwords, tokens)

    def with_token(self, token: str) -> "Credentials":
        """Return these with one token more."""
        more = copy.copy(self)
        more._tokens = [*self._tokens, token.encode()]
        return more

    def accept(self, header: bytes) -> bool:
        """Return whether an `Authorization` header names a user with the right password or a token.

        All are compared, in the same time whatever is right about them.
        """
        scheme, _, rest = header.partition(b" ")
        if scheme.lower() == b"bearer":
            return _any_equal(rest.strip(), self._tokens)
        if scheme.lower() != b"basic":
            return False
        try:
            pair = base64.b64decode(rest.strip(), validate=True)
        except binascii.Error:
            return False
        _, _, password = pair.partition(b":")
        return bool(_any_equal(pair, self._pairs) | _any_equal(password, self._tokens))


def _any_equal(given: bytes, known: list[bytes]) -> bool:
    found = [hmac.compare_digest(given, one) for one in known]  # all, so that none ends it early
    return any(found)
