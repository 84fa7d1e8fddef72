"""What others need to hold their plug-ins to our bar: dumb references, random problems, strategies."""
