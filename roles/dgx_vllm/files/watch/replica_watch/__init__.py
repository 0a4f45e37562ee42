"""Keeps the nodes of a replica in step: they start, stop and recover as one.

vLLM's nodes form one distributed process group. When one of them goes, the others hang or serve errors while
/health returns 200, and a restarted node cannot join a running group: all of them must restart together. A watch
runs on every node; each publishes what it knows, and the highest generation decides.

Python standard library only; runs on the node's Python 3.9 or newer.
"""
