"""`python -m vtw_search` is `vtw-search`."""

from vtw_search.commands.search import main

main()
