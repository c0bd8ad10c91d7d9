"""The whole story on loopback: doubles of the services that the pack talks to."""
