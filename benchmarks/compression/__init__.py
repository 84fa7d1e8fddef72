"""Networks that are compressed without any training afterwards: how they come about, and what is left of them."""
