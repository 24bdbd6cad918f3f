"""Write contrib/man, contrib/completions and docs/exit-codes.md from the table of verbs (make man)."""

import os
import sys

from ocimig.cli import completions, exits, manpages

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def generated() -> dict[str, str]:
    """Every generated file, by its path in the project."""
    found = {"docs/exit-codes.md": exits.page()}
    found.update({f"contrib/man/{name}": text for name, text in manpages.pages().items()})
    found.update(
        {f"contrib/completions/{path}": text for path, text in completions.files().items()}
    )
    return found


def main() -> int:
    """Write what has changed, and say so."""
    for path, text in generated().items():
        full = os.path.join(ROOT, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if os.path.exists(full):
            with open(full, encoding="utf-8") as file:
                if file.read() == text:
                    continue
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
