"""Where agents dial in: one stream per node, typed reports out, stamped commands in."""
