"""How fast, how disturbing and how large: ratios measured side by side, on servers of our own."""
