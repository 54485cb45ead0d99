"""`report.html`: everything that was measured, in one file that needs no server and no network.

`writing` puts it together from what the other modules compute: `table` the comparison, `charts`
the drawings, `details` what is said of each variant, `pictures` the embedded pictures. Templates,
styles and scripts are files of their own kind beside them.
"""

from __future__ import annotations

#: Stands in every saved blind test: another number means that the game was another one.
PAGE_VERSION = 1
