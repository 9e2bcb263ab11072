"""Pure rules of the product: states, reasons, policies. Standard library only."""
