"""Making the variants of what the parts of a split pass have written.

It is a pass like any other, that finds its weights written already: it hashes source and variants,
and does what a part left undone.
"""

from __future__ import annotations

from fluxconv.recipes.kinds import Kind, quantize

KIND = Kind("assemble", 1, quantize.KIND.run, quantize.KIND.stands, quantize.KIND.packages)
