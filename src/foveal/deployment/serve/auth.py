"""Authentication by user and password, or by token."""

import base64
import binascii
import copy
import hmac
from pathlib import Path

from foveal.foundation.errors import UserError
from foveal.foundation.files import MAX_SETTINGS, read_bytes


class Credentials:
    """The passwords and tokens that the server accepts.

    A token is accepted as `Authorization: Bearer TOKEN`, and as the password of any user, because
    browsers prompt only for a user and a password.

    Args:
        passwords: passwords by user.
        tokens: tokens, each of which gives full access.

    Raises:
        UserError: there are no credentials, or one is empty.
    """

    def __init__(self, passwords: dict[str, str], tokens: list[str]):
        if not passwords and not tokens:
            raise UserError("Expected at least 1 line, user:password or a token, but got none.")
        if not all([*passwords, *passwords.values(), *tokens]):
            raise UserError("Expected user:password, but the user or the password is empty.")
        self._pairs = [f"{user}:{password}".encode() for user, password in passwords.items()]
        self._tokens = [token.encode() for token in tokens]

    @classmethod
    def read(cls, path: Path) -> "Credentials":
        """Return the credentials in a file with `user:password` or a token per line.

        Empty lines and lines that begin with # are ignored.

        Raises:
            UserError: the file cannot be read, or has no credentials.
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
        """Return these credentials with one more token."""
        extended = copy.copy(self)
        extended._tokens = [*self._tokens, token.encode()]
        return extended

    def accept(self, header: bytes) -> bool:
        """Return whether an `Authorization` header holds a user's password or a token.

        Every credential is compared, in constant time, so that the duration reveals nothing.
        """
        scheme, _, value = header.partition(b" ")
        if scheme.lower() == b"bearer":
            return _any_equal(value.strip(), self._tokens)
        if scheme.lower() != b"basic":
            return False
        try:
            pair = base64.b64decode(value.strip(), validate=True)
        except binascii.Error:
            return False
        _, _, password = pair.partition(b":")
        # `|` evaluates both sides, unlike `or`, whose time would depend on the first.
        return bool(_any_equal(pair, self._pairs) | _any_equal(password, self._tokens))


def _any_equal(candidate: bytes, secrets: list[bytes]) -> bool:
    matches = [hmac.compare_digest(candidate, secret) for secret in secrets]  # no early exit
    return any(matches)
