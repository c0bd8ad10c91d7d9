"""The record of the groups that the interfaces of an instance had: written, kept clean, sealed."""

import logging
from functools import partial

from custom_actions import record, seal
from custom_actions.record import ORIGINAL_GROUPS, tags_of
from custom_actions.response import REFUSED, describe

log = logging.getLogger("custodian.actions.isolate")


def group_ids(interface):
    return [group["GroupId"] for group in interface["Groups"]]


def by_hand(interface_id, groups):
    """What a person says at the release for an interface whose groups are not on record."""
    return f"GROUPS={interface_id}={','.join(groups)}"


class GroupsRecord:
    """The record of one instance in one response.

    seals: {VPC id: seal} as the response found them. begins: whether this response begins the
    incident, so that no tag which is there already is the pack's.

    of: {interface id: the groups that it had}. refused: {interface id: why that is not recorded}.
    by: the deployment that has sealed first, as far as this response knows.
    foreign: {tag key: value} of what was there and is not the pack's. unsealed: why there is no
    seal, where there can be none.
    """

    def __init__(self, client, instance_id, seals, begins):
        self.client, self.instance_id = client, instance_id
        self.seals, self.begins = seals, begins
        self.of = {}
        self.refused = {}
        self.foreign = {}
        self.by = self._sealed_by(seals)
        self.unsealed = None  # why there is no room for a seal
        self.doubtful = set()  # interfaces that have other groups than on record, and no seal
        self._shown = {}  # as the interfaces' tags say it
        self._again = set()  # interfaces whose record was gone, and was written once more
        self._claimed = []  # what got the claim
        self._stray = []  # the forensic groups that got the record with it
        self._written = {}  # interface id: the tags with its record, as this response wrote them

    @property
    def is_being_released(self):
        """Whether the seal says that a person is at it; the instance's own tag is not asked."""
        return any(seal.RELEASING in found for found in self.seals.values())

    @staticmethod
    def _sealed_by(seals):
        return next((found[seal.BY] for found in seals.values() if seal.BY in found), None)

    def read(self, interfaces):
        """Take over what the tags say. interfaces: with their tags, as EC2 describes them now."""
        self._shown = seal.groups_on_record(interfaces)
        for interface in interfaces:
            name = interface["NetworkInterfaceId"]
            if name in self._shown:
                self.of.setdefault(name, self._shown[name])
            elif name in self.of and name not in self._again and name not in self.refused:
                # gone since the first look: a person has released it meanwhile, or another response
                # to the same instance was held back and took its own record off
                self._again.add(name)
                self._record([name])

    def write(self, interfaces, carriers=(), claim=None):
        """Record the groups of interfaces that are about to be changed, where nothing is on record.

        What is on record is never written again: an interface that somebody opened goes back to
        what it had at first. Without a seal nobody can tell that from what an intruder wrote, so
        it is not sealed either, and a release asks.

        One call for all; each then carries the records of its siblings as well, which is harmless,
        tells what one had that is detached later, and keeps the number of calls before the swap
        down. Where it is refused, each alone: one that is gone, or full of tags, fails them all.

        claim: a tag for the forensic groups `carriers`, the seal's first word. It goes in the same
        call, so that the groups get the record too, until `tidy`.
        """
        now = {interface["NetworkInterfaceId"]: group_ids(interface) for interface in interfaces}
        if not self.seals:
            self.doubtful |= {
                name
                for name, groups in now.items()
                if name not in self._written and self.of.get(name, groups) != groups
            }
        new = [name for name in now if name not in self.of]
        self.of |= {name: now[name] for name in new}
        if carriers:
            self._claim(new, sorted(carriers), claim)
        elif new:
            self._record(new)

    def _claim(self, new, carriers, claim):
        """The record and the claim in one call; where it is refused, each by itself."""
        tags = {name: record.as_tags(ORIGINAL_GROUPS + name, self.of[name]) for name in new}
        record_tags = [tag for own in tags.values() for tag in own]
        if not self._tag([*new, *carriers], [*record_tags, claim]):
            self._written |= tags
            self._claimed = [*new, *carriers]
            self._stray = carriers if new else []
            return
        for group_id in carriers:
            try:
                seal.write_tag(self.client, group_id, claim["Key"], claim["Value"])
                self._claimed.append(group_id)
            except (seal.NoRoom, *REFUSED) as error:
                log.warning("the isolation is not counted on %s: %s", group_id, describe(error))
        if new:
            self._record(new)

    def withdraw(self, claim):
        """Take back the claim, and what was recorded with it. Raises what EC2 answers.

        With their values: what another response to the same instance has written stays.
        """
        tags = {tag["Key"]: tag for own in self._written.values() for tag in own}
        if self._claimed:
            tags[claim["Key"]] = claim
        if tags:
            self.client.delete_tags(
                Resources=sorted({*self._claimed, *self._written}), Tags=list(tags.values())
            )

    def tidy(self, run):
        """Take the record off the forensic groups, where it stands beside the claim."""
        keys = [tag["Key"] for tags in self._written.values() for tag in tags]
        if self._stray:
            run.attempt(
                "tags of the record on the forensic group",
                partial(self.client.delete_tags, Resources=self._stray),
                Tags=[{"Key": key} for key in keys],
            )

    def _record(self, new):
        """Write what interfaces had into their tags; remember what is refused."""
        tags = {name: record.as_tags(ORIGINAL_GROUPS + name, self.of[name]) for name in new}
        refused = self._tag(new, [tag for own in tags.values() for tag in own])
        for name in list(refused) if len(new) > 1 else ():
            refused.pop(name)
            refused |= self._tag([name], tags[name])
        self._written |= {name: tags[name] for name in new if name not in refused}
        for name, error in refused.items():
            # Isolated all the same; the mail and this line are then the only record.
            log.error("not recorded: the original groups of %s are %s", name, self.of[name])
            self.refused[name] = (
                f"its original groups could not be recorded: {describe(error)}. Say them at the "
                f"release: {by_hand(name, self.of[name])}"
            )

    def _tag(self, interface_ids, tags):
        """Write tags; {interface id: error} when that is refused."""
        try:
            self.client.create_tags(Resources=interface_ids, Tags=tags)
        except REFUSED as error:
            return dict.fromkeys(interface_ids, error)
        return {}

    def remove_foreign(self, run, interfaces):
        """Remove what the tags of the interfaces say of the record and the pack has not written."""
        own = {tag["Key"]: tag["Value"] for tags in self._written.values() for tag in tags}
        for interface in interfaces if own else ():
            shown = tags_of(interface, "TagSet")
            foreign = {k: v for k, v in shown.items() if self._is_ours(k) and own.get(k) != v}
            self.remove(run, interface["NetworkInterfaceId"], foreign)

    def _is_ours(self, key):
        """Whether a tag is about an interface whose record this response had to write."""
        name = key.removeprefix(ORIGINAL_GROUPS).partition(":")[0]
        return key.startswith(ORIGINAL_GROUPS) and (self.begins or name in self._written)

    def remove(self, run, resource_id, tags):
        """Remove tags that are not the pack's, and remember them.

        With their values: what another response of this moment has written stays.
        """
        if not tags:
            return
        self.foreign |= tags
        run.attempt(
            "tags of an earlier record",
            partial(self.client.delete_tags, Resources=[resource_id]),
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )

    def seal(self, run, group_ids, reopened, begun=None, counts=True, by=None):
        """Put the digest of the record on the forensic groups, unless it is there.

        group_ids: {VPC id: forensic group} of the interfaces. reopened: whether an instance that a
        person was releasing is isolated again. begun: as the claim says it; counts: whether the
        brake has to count it. by: the word of this deployment, None for a person; that of the first
        to seal stays. What was sealed before and is not what is on record now stays sealed as it
        was: a release then asks.
        """
        known = self._shown | {name: self.of[name] for name in self._written}
        words = seal.words_of({k: v for k, v in known.items() if k not in self.refused})
        digest = seal.digest(words)
        there = (self.seals.get(vpc_id, {}).get(seal.GROUPS) == digest for vpc_id in group_ids)
        if all(there) and not reopened:
            return
        told = "the record could not be sealed, a release will ask"
        # read again: another response may have sealed meanwhile what it has recorded
        carriers = set(group_ids.values())
        present = run.read(told, seal.find, self.client, self.instance_id, carriers, default={})
        if told in run.unread:
            return  # a seal that cannot be read must not be overwritten
        self.by = self._sealed_by(present) or by
        sealed = {part: text for found in present.values() for part, text in found.items()}
        mine = seal.words_of({name: self.of[name] for name in self._written})
        if seal.GROUPS in sealed and not seal.is_sealed(sealed, seal.GROUPS, words, mine):
            run.errors["the record of the original groups"] = seal.Broken(
                "it is not the one that was sealed: somebody changed tags "
                f"{ORIGINAL_GROUPS}... of the interfaces. A release will ask"
            )
            return
        if self.doubtful:
            run.resource[record.DOUBTFUL] = True
            run.errors["the record of the original groups"] = seal.Broken(
                f"{', '.join(sorted(self.doubtful))}: had other groups than on record, and the "
                "record was never sealed. A release will ask"
            )
            return
        own = {word: text for word, text in ((seal.BEGUN, begun), (seal.BY, by)) if text}
        wanted = own | sealed | {seal.GROUPS: digest}
        if not counts:
            wanted.pop(seal.BEGUN, None)
        if reopened:
            wanted.pop(seal.RELEASING, None)
        for group_id in sorted(carriers):
            if present.get(group_id) == wanted:
                continue
            try:
                seal.write(self.client, group_id, self.instance_id, wanted)
            except seal.NoRoom as error:
                self.unsealed = str(error)
            except REFUSED as error:
                run.errors[told] = error
