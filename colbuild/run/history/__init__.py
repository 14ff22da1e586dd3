"""The records of builds: `build_record` writes every event of a build to a file, `history` reads such files back.

A record may end anywhere, since a build may be killed; its lock says whether the build still runs. The room may import
events, errors and the store.
"""
