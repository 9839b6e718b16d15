"""Packing: which node takes the next replica."""
