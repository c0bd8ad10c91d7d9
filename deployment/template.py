"""A template of infra/ as CloudFormation takes it."""

import functools
from pathlib import Path

import yaml

from deployment.errors import Refused

INFRA = Path(__file__).parent.parent / "infra"
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
INLINE = 51_200


class Short(yaml.SafeLoader):
    """CloudFormation's short forms (!Ref, !Sub) as their plain value: to look, not to send."""


def _plain(loader, _, node):
    construct = {
        yaml.MappingNode: loader.construct_mapping,
        yaml.SequenceNode: loader.construct_sequence,
    }.get(type(node))
    return construct(node, deep=True) if construct else node.value


Short.add_multi_constructor("!", _plain)


def text(file):
    """The text of a template. Raises Refused where it is too long to be sent with the call.

    A longer one would have to lie in a bucket (TemplateURL): the pack has none, and tests keep its
    templates short.
    """
    body = (INFRA / file).read_text()
    if len(body.encode()) > INLINE:
        raise Refused(
            f"infra/{file} has {len(body.encode())} bytes, and CloudFormation takes {INLINE} in a "
            "call. Divide it, or deploy it from a bucket: aws cloudformation deploy --s3-bucket."
        )
    return body


def look(file):
    """A template as it reads, with short forms as plain values."""
    return _looked_at((INFRA / file).read_text())


@functools.cache
def _looked_at(body):
    return yaml.load(body, Short)  # noqa: S506 - a SafeLoader


def written_out(body, parameters):
    """A template with the loops of AWS::LanguageExtensions (Fn::ForEach) written out, by cfn-lint's
    own transform.

    parameters: {name: value} that loops go over, instead of the template's defaults.
    """
    # Not at the top: it takes more than a second.
    from cfnlint.decode import cfn_yaml
    from cfnlint.template import Template

    decoded = cfn_yaml.loads(body)
    for name, value in parameters.items():
        if name in decoded.get("Parameters", {}):
            decoded["Parameters"][name]["Default"] = value
    template = Template("template", decoded, ["us-east-1"])
    if problems := template.transform():
        raise ValueError(f"AWS::LanguageExtensions: {problems}")
    return template.template
