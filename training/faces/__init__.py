"""Avatars of 16 × 16 pixels: their parts, their palette, the judge of whole ones."""
