"""What the replay benchmark is compared with, in an environment of its own. Each script runs alone and prints one JSON line."""
