"""Writes tests/golden/launchers anew: python -m tests.launchers.write_manifests. Review the difference."""

from __future__ import annotations

from tests.launchers.rendered import GOLDEN, everything


def main() -> None:
    for name, text in everything().items():
        (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
        (GOLDEN / name).write_text(text)


if __name__ == "__main__":
    main()
