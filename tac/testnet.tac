# twistd -ny tac/testnet.tac: a node of the test network, as it is.
from stellar_overlay.tap import application as node

application = node(arguments=["--network", "testnet"])
