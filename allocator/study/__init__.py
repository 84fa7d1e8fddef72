"""How informative are errors of approximation? The study of Schuurmans et al. (ICLR 2023) on networks at hand."""
