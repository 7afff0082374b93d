"""What maintainers run: the set-up and the notebook builder."""

import sys

# jsonschema, which nbformat needs, looks for this one to check IRIs, which no notebook has; it
# takes 1.7 s of processor time in every process that reads a notebook. Not found, it is done
# without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
