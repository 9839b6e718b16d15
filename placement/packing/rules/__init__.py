"""Packing rules, one a file, named after the papers and simulators they come from; `registry` lists them."""
