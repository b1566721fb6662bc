"""The judge without a model: phrases and words from tables, and nothing that understands them."""
