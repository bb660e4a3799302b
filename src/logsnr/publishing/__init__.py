"""From a run to a page and a repo of the Hub."""
