"""The machine underneath: its packages, processes and control groups, and what is built and kept on it."""
