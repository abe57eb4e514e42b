from colordaemon.cli import main

main()
