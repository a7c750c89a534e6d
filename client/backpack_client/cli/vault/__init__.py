"""The commands for the vault and the daemon: init, unlock, slots, backups, panic, start."""
