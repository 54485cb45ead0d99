"""The pages of the rehearsal Hub: what was published, as a browser on the Hub would show it.

Their addresses are the Hub's own, so what the client prints after a push can be opened:
``/NS/NAME``, ``/NS/NAME/tree/REV``, ``/collections/NS/SLUG`` and so on.

**Who sees what.** The pages keep to the rules of the API: without a sign-in they show what the
public sees, so no private repository, and no file behind a gate. ``fluxconv hub serve`` prints an
address with a key in it (``owner_address``), which signs its browser in as the folder's owner; a
token typed into the page does the same. Other users of the machine, and other pages in the same
browser, so learn nothing from the port alone. Signed in, one button shows every page as the
public would see it: that is the look before going public.

**Everything in a repository is hostile.** Cards are Markdown with HTML: it is cleaned by an
allowlist (``nh3``), its addresses are resolved against the commit's own list of files, and the
policy sent with every page forbids scripts, frames, inline styles and any request to another
host. Pictures of other hosts are shown as links. There is no JavaScript at all.

=====================  ==========================================================
``serving.py``         the table of pages, the headers, the pages of errors
``access.py``          who looks: the key, the cookie
``visit.py``           one request for a page
``lists.py``           the start, an account, a collection
``repositories.py``    the card of a repository, its files, one file, its history
``conversations.py``   discussions, pull requests, the button on a gate
``runs.py``            the run of a recipe, for its owner
``contents.py``        the contents of files for pictures and downloads
``opened.py``          a repository at a commit, as whoever looks may see it
``facts.py``           what the metadata of a card says
``markdown.py``        Markdown to harmless HTML
``places.py``          where an address in a card leads
``rewriting.py``       cleaned HTML with the addresses looked up
``remarks.py``         what an owner should look at before going public
``words.py``           sizes, times and addresses
=====================  ==========================================================
"""

from fluxconv.hub.rehearsal.pages.access import owner_address
from fluxconv.hub.rehearsal.pages.serving import routes

__all__ = ["owner_address", "routes"]
