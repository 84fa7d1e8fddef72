"""A short distillation of what a compressed network stores besides its codes."""
