"""What a vault holds in sealed form: the authority record, key records, trust, states.

The bytes on the disk are a store's business, see `ports.Store`.
"""
