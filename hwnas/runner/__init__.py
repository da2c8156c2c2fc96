"""The runner: a small process that runs and times programs, here or on another machine.

It is sent to machines as one zip file, where it needs Python 3.9 or later, numpy and the runtime, and nothing of hwnas
or torch. So this package imports only the standard library, numpy and runtimes with what they bring, and keeps to the
syntax of Python 3.9.
"""
