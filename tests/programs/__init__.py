"""Programs that tests run in processes of their own, most of them colordaemon tampered with."""
