"""Time To First Token over real ranks: protocol, ranks, links, breakdown, result rows."""
