"""Takes the messages of the policies off the mail queue and delivers them.

c7n_mailer finds the recipients and renders; this package owns the loop around it, because the stock
loop deletes a message whatever the mail server said. Here a message is deleted after everybody has
it, and never before. See docs/mailer.md.
"""
