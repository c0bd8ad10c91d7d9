"""The ways out of the mailer, one a file. A new one is a file here and its class in this list.

See transport.Transport for what it has to have; tests/mailer/test_transport_contract.py holds it to
that.
"""

from .record import Record
from .ses import Ses
from .slack import Slack
from .smtp import Smtp
from .sns import Sns
from .splunk import Splunk

# In this order a message goes out: the mail first, since people wait for it.
TRANSPORTS = (Smtp, Ses, Slack, Splunk, Sns, Record)
