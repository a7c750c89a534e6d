"""The calls to the daemon: builds requests, reads answers, and turns errors into Failures.

Pure: nothing here has a channel, waits or keeps state. The blocking API and the asyncio API carry
these calls out, so neither repeats the other's code. No value and no passphrase ever appears in a
message or a repr here.

Each service of the API has one module. `call` and `fields` hold what they share.
"""
