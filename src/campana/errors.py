"""The tree of exceptions. A user's mistake is a `UserError`: it is shown without a traceback.

CampanaError
├── UserError            what, where, and what to type next
│   ├── StudyError       the study file is wrong (exit code 2)
│   ├── DataError        a data file or one of its rows is wrong
│   ├── ModelError       a model cannot be had, read or trusted
│   └── StoreError       the store cannot be read or written (disk full, read-only, damaged)
└── StageFailed          a stage ended with an error; its own message is inside (exit code 1)
"""


class CampanaError(Exception):
    """Base of all errors that campana raises on purpose.

    `message` says what is wrong, `where` names the place (file:line, field path, stage), `hint` says what to type next.
    """

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UserError(CampanaError):
    """Something the person can mend."""


class StudyError(UserError):
    """The study file is wrong."""


class DataError(UserError):
    """A data file, or a row in it, is wrong."""


class ModelError(UserError):
    """A model cannot be had, read or trusted."""


class StoreError(UserError):
    """The store cannot be read or written."""


class StageFailed(CampanaError):  # noqa: N818  # what happened to a stage, not always a mistake
    """A stage ended with an error."""
