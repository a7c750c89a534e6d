"""The calls to the daemon: each request built, each answer read, every error made a Failure.

Pure: nothing here has a channel, waits or keeps state. The blocking API and the asyncio one carry
these calls out, so neither repeats what the other does. No value and no passphrase ever comes into
a message or a repr here.

One module for each service of the API; what they share stands in `call` and `fields`.
"""
