.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
# The functions run on 3.13 (mode.runtime), and what is deployed from it starts faster. Those that are
# found are tried: a name can be there and start nothing, as pyenv's does unless its version is chosen.
PYENV := $(shell pyenv root 2>/dev/null)
python = $(if $(shell python$(1) -V 2>/dev/null),python$(1),$(if $(PYENV),$(lastword $(wildcard $(PYENV)/versions/$(1).*/bin/python))))
PYTHON ?= $(firstword $(foreach v,3.13 3.12 3.11,$(call python,$(v))) python3.13)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PACK := $(BIN)/python -m custom_actions
POLICIES := $(wildcard policies/*.yml)
# Those that become Lambda functions. A policy without a mode would be run by a deploy, at once.
DEPLOYABLE := $(shell grep -l '^    mode:' $(POLICIES))

# A folder for each instance, so that two releases at once never share a file.
RELEASE = output/release/$(INSTANCE)
# GROUPS is a variable of bash, which the recipes must not see; only what stands behind make counts.
RELEASE_GROUPS = $(if $(filter command,$(firstword $(origin GROUPS))),$(GROUPS))

# The same for what is done by hand; a finding may be a file.
ISOLATE = output/isolate/$(INSTANCE)
REVOKE = output/revoke-sessions/$(notdir $(FINDING))
DEACTIVATE = output/deactivate-key/$(notdir $(FINDING))
EMPTY = output/empty-forensic-group/$(GROUP)

# How far the policies may go by themselves (custom_actions/autonomy.py). Without MODE a function stays
# as it is deployed, and a new one observes.
AUTONOMY = $(if $(MODE),--vars-file output/deploy/vars.yml)

INFRA = $(if $(STACKS),--stacks "$(STACKS)") $(if $(MAIL_QUEUE),--mail-queue "$(MAIL_QUEUE)") \
	$(if $(ALARM_TOPIC),--alarm-topic "$(ALARM_TOPIC)") $(if $(ORGANIZATION),--organization "$(ORGANIZATION)") \
	$(foreach pair,$(PARAMETERS),--parameter '$(pair)') $(if $(YES),--yes)

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Install what the pack needs into .venv

$(INSTALLED): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

lint: $(INSTALLED) ## Check Python and YAML style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .

validate: $(INSTALLED) ## Custodian's own validation of every policy, with the pack loaded
	$(PACK) custodian validate --strict $(POLICIES) $(wildcard policies/opt-in/*.yml)

test: lint validate ## Lint, validate, and run all tests, offline
	$(BIN)/pytest

demo: $(INSTALLED) ## Play the story on this machine; [FINDING=file.json] another finding, [MODE=observe|ask]
	@$(BIN)/python -m simulation.demo $(if $(FINDING),"$(FINDING)") $(if $(MODE),--mode "$(MODE)")

benchmark: $(INSTALLED) ## Speed beside a bare boto3 function, endurance, 200 findings at once; more than 5 min
	@$(BIN)/python -m simulation.benchmark

hammer: $(INSTALLED) ## Slow tests, then every call of every flow gone wrong, hundreds of schedules; HAMMER="--seeds 5 ..."
	@$(BIN)/pytest -q -m slow
	@PYTHONHASHSEED=0 PYTHONPATH=.:tests:tests/conformance $(BIN)/python tests/hostile/hammer.py $(HAMMER)

permissions: $(INSTALLED) ## Write docs/permissions.md: what each role may do, and which step needs it
	$(BIN)/python -m infra.permissions > docs/permissions.md

record: $(INSTALLED) ## Record the placebo answers of tests/replay again
	PYTHONPATH=. $(BIN)/python tests/replay/scenarios.py

infra: $(INSTALLED) need-REGION ## Make or update what must exist before a deploy, shown first; REGION=... [MAIL_QUEUE=arn] [ALARM_TOPIC=arn] [ORGANIZATION=o-...] [STACKS=...] [PARAMETERS="Key=Value ..."] [YES=1]
	@$(BIN)/python -m deployment infra --region "$(REGION)" $(INFRA)

infra-org: $(INSTALLED) ## The same in the accounts of accounts.yml; [ACCOUNTS="-a NAME"] [TAGS="-t KEY:VALUE"] [ROLE=name] and as infra
	@$(BIN)/python -m deployment infra -c accounts.yml $(ACCOUNTS) $(TAGS) $(if $(ROLE),--role "$(ROLE)") $(INFRA)

stackset: $(INSTALLED) need-REGIONS need-ORGANIZATIONAL_UNITS ## The same by StackSets, in new accounts too; ORGANIZATIONAL_UNITS=ou-...,r-... REGIONS=first,second [DELEGATED=1] and as infra
	@$(BIN)/python -m deployment stackset --organizational-units "$(ORGANIZATIONAL_UNITS)" --regions "$(REGIONS)" $(if $(DELEGATED),--delegated) $(INFRA)

accounts: $(INSTALLED) ## Write accounts.yml from AWS Organizations; [OU=/path] [REGIONS=a,b] [ROLE=name] [TAG=key:value] [VARS=tag,...] [MANAGEMENT=1]
	@$(BIN)/python -m deployment accounts $(foreach ou,$(OU),--ou "$(ou)") $(if $(REGIONS),--regions "$(REGIONS)") $(if $(ROLE),--role "$(ROLE)") $(foreach tag,$(TAG),--tag "$(tag)") $(if $(VARS),--vars "$(VARS)") $(if $(MANAGEMENT),--management)

dryrun: $(INSTALLED) need-REGION ## List what the policies would select in an account; REGION=... (event filters do not apply)
	$(PACK) custodian run --dryrun --cache-period 0 --region "$(REGION)" -s output/dryrun $(DEPLOYABLE)

deploy: $(INSTALLED) need-REGION autonomy ## Deploy the policies to the current account; REGION=... [MODE=observe|ask|contain]
	$(PACK) custodian run --region "$(REGION)" $(AUTONOMY) -s output/deploy $(DEPLOYABLE)

deploy-org: $(INSTALLED) validate ## Deploy the policies to the accounts of accounts.yml; ACCOUNTS="-a NAME"
	$(foreach policy,$(DEPLOYABLE),$(PACK) c7n-org run -c accounts.yml $(ACCOUNTS) -s output/org -u $(policy) &&) true

isolate: $(INSTALLED) need-REGION need-INSTANCE check-INSTANCE check-FINDING ## Isolate one instance by hand; INSTANCE=i-... REGION=... [FINDING=<id or file>]
	@mkdir -p $(ISOLATE) && printf 'instance: "%s"\nfinding: "%s"\n' '$(INSTANCE)' '$(FINDING)' > $(ISOLATE)/vars.yml
	$(PACK) custodian run --region "$(REGION)" --cache-period 0 -s $(ISOLATE) --vars-file $(ISOLATE)/vars.yml policies/ec2-isolate-by-hand.yml
	@grep -q '"InstanceId": "$(INSTANCE)"' $(ISOLATE)/ec2-isolate-by-hand/resources.json || { echo "$(INSTANCE) is not in $(REGION) of this account. Nothing was changed."; exit 1; }

revoke-sessions: $(INSTALLED) need-REGION need-FINDING check-FINDING ## Revoke the role session that a finding names; FINDING=<id or file> REGION=...
	@mkdir -p $(REVOKE) && printf 'finding: "%s"\n' '$(FINDING)' > $(REVOKE)/vars.yml
	$(PACK) custodian run --region "$(REGION)" --cache-period 0 -s $(REVOKE) --vars-file $(REVOKE)/vars.yml policies/iam-role-revoke-sessions-by-hand.yml

empty-forensic-group: $(INSTALLED) need-REGION need-GROUP ## Revoke every rule of a forensic group; GROUP=sg-... REGION=...
	@[[ "$(GROUP)" =~ ^sg-[0-9a-f]{8,17}$$ ]] || { echo "GROUP=$(GROUP) is not the id of a security group"; exit 2; }
	@mkdir -p $(EMPTY) && printf 'group: "%s"\n' '$(GROUP)' > $(EMPTY)/vars.yml
	$(PACK) custodian run --region "$(REGION)" --cache-period 0 -s $(EMPTY) --vars-file $(EMPTY)/vars.yml policies/forensic-group-empty-by-hand.yml
	@grep -q '"GroupId": "$(GROUP)"' $(EMPTY)/forensic-group-empty-by-hand/resources.json || { echo "$(GROUP) is not in $(REGION) of this account, or has no tag forensic:group=true. Nothing was changed."; exit 1; }

release: $(INSTALLED) need-REGION need-INSTANCE check-INSTANCE ## Release one isolated instance; INSTANCE=i-... REGION=... [RECORD=...] [GROUPS="eni-...=sg-...,sg-..."] [ARCHIVE=1]
	@[[ "$(ARCHIVE)" =~ ^1?$$ ]] || { echo "ARCHIVE is 1, which archives the finding too, or nothing"; exit 2; }
	@[[ "$(RECORD)" =~ ^[A-Za-z0-9_-]*$$ ]] || { echo "RECORD=$(RECORD) is not the word that a release asks for"; exit 2; }
	@[[ "$(RELEASE_GROUPS)" =~ ^[a-z0-9=,\ -]*$$ ]] || { echo "GROUPS is eni-...=sg-...,sg-... and a blank between two interfaces"; exit 2; }
	@mkdir -p $(RELEASE) && printf 'instance: "%s"\nrecord: "%s"\ngroups: "%s"\narchive: "%s"\n' '$(INSTANCE)' '$(RECORD)' '$(RELEASE_GROUPS)' '$(ARCHIVE)' > $(RELEASE)/vars.yml
	$(PACK) custodian run --region "$(REGION)" --cache-period 0 -s $(RELEASE) --vars-file $(RELEASE)/vars.yml policies/ec2-release.yml
	@grep -q '"InstanceId": "$(INSTANCE)"' $(RELEASE)/ec2-release/resources.json || { echo "$(INSTANCE) is not in $(REGION) of this account. Nothing was changed."; exit 1; }

restore-sessions: $(INSTALLED) need-ROLE need-FINDING ## Lift the deny of a credential finding; ROLE=... FINDING=<finding id>
	@mkdir -p output/restore-sessions && printf 'role: "%s"\nfinding: "%s"\n' '$(ROLE)' '$(FINDING)' > output/restore-sessions/vars.yml
	$(PACK) custodian run --region us-east-1 --cache-period 0 -s output/restore-sessions --vars-file output/restore-sessions/vars.yml policies/iam-role-restore-sessions.yml

deploy-opt-in: $(INSTALLED) need-REGION need-POLICY autonomy ## Deploy one policy of policies/opt-in; POLICY=name REGION=... [MODE=...]
	$(PACK) custodian run --region "$(REGION)" $(AUTONOMY) -s output/deploy policies/opt-in/$(POLICY).yml

deactivate-key: $(INSTALLED) need-REGION need-FINDING check-FINDING ## Deactivate the access key that a finding names; FINDING=<id or file> REGION=...
	@mkdir -p $(DEACTIVATE) && printf 'finding: "%s"\n' '$(FINDING)' > $(DEACTIVATE)/vars.yml
	$(PACK) custodian run --region "$(REGION)" --cache-period 0 -s $(DEACTIVATE) --vars-file $(DEACTIVATE)/vars.yml policies/opt-in/iam-user-deactivate-access-key-by-hand.yml
	@grep -q '"UserName"' $(DEACTIVATE)/iam-user-deactivate-access-key-by-hand/resources.json || { echo "IAM knows no such user as $(FINDING) names. Nothing was changed."; exit 1; }

reactivate-key: $(INSTALLED) need-USER_NAME need-KEY need-FINDING ## Reactivate an access key; USER_NAME=... KEY=AKIA... FINDING=<finding id>
	@mkdir -p output/reactivate-key && printf 'user: "%s"\nkey: "%s"\nfinding: "%s"\n' '$(USER_NAME)' '$(KEY)' '$(FINDING)' > output/reactivate-key/vars.yml
	$(PACK) custodian run --region us-east-1 --cache-period 0 -s output/reactivate-key --vars-file output/reactivate-key/vars.yml policies/opt-in/iam-user-reactivate-access-key.yml

deploy-mailer: $(INSTALLED) ## Deploy the mailer as a Lambda function fed by the mail queue (mailer/mailer.yml)
	$(BIN)/python -m mailer deploy --config mailer/mailer.yml

mail: $(INSTALLED) ## Empty the mail queue once from here, instead of the function
	$(BIN)/python -m mailer --config mailer/mailer.yml --once

mail-dlq: $(INSTALLED) ## List the mails that could not be delivered; SEND_BACK=1 puts them on the queue again
	$(BIN)/python -m mailer dead-letters $(if $(SEND_BACK),send-back,list) --config mailer/mailer.yml

autonomy:
	@[[ "$(MODE)" =~ ^(observe|ask|contain)?$$ ]] || { echo "MODE is observe, ask or contain, not $(MODE)"; exit 2; }
	@mkdir -p output/deploy && printf 'autonomy: "%s"\n' '$(MODE)' > output/deploy/vars.yml

check-INSTANCE:
	@[[ "$(INSTANCE)" =~ ^i-([0-9a-f]{8}|[0-9a-f]{17})$$ ]] || { echo "INSTANCE=$(INSTANCE) is not the id of an EC2 instance"; exit 2; }

check-FINDING:
	@[[ "$(FINDING)" =~ ^[A-Za-z0-9_./@+-]*$$ ]] || { echo "FINDING=$(FINDING) is neither the id of a finding nor a path without blanks"; exit 2; }

need-%:
	@[ -n "$($*)" ] || { echo "say $*=..., see make help"; exit 2; }

clean: ## Remove what install, demo and runs have made
	rm -rf $(VENV) output

.PHONY: help install lint validate test demo benchmark hammer permissions record infra infra-org stackset accounts dryrun deploy deploy-org isolate revoke-sessions empty-forensic-group release restore-sessions deploy-opt-in deactivate-key reactivate-key deploy-mailer mail mail-dlq autonomy check-INSTANCE check-FINDING clean
