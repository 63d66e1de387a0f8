"""What the registry asks W&B's server: operations of W&B's SDK, with the fields needed here."""

from __future__ import annotations

from typing import Final

VIEWER: Final = "query Viewer { viewer { id entity username } }"
ORGANIZATION: Final = """
query FetchOrgInfoFromEntity($entity: String!) {
  entity(name: $entity) {
    organization { name orgEntity { name } }
    user { organizations { name orgEntity { name } } }
  }
}
"""
REGISTRY: Final = """
query FetchRegistry($name: String, $entity: String) {
  entity(name: $entity) { project(name: $name) { id name } }
}
"""
_ARTIFACT: Final = """
id state versionIndex digest description metadata createdAt
aliases { alias artifactCollection { __typename name project { name entity { name } } } }
"""
UPSERT_RUN: Final = """
mutation UpsertBucket($name: String!, $project: String!, $entity: String!, $displayName: String,
    $jobType: String, $state: String) {
  upsertBucket(input: {name: $name, modelName: $project, entityName: $entity,
      displayName: $displayName, jobType: $jobType, state: $state}) {
    bucket { id name }
  }
}
"""
CREATE: Final = """
mutation CreateArtifact($input: CreateArtifactInput!) {
  createArtifact(input: $input) { artifact { id state } }
}
"""
CREATE_MANIFEST: Final = """
mutation CreateArtifactManifest($artifactID: ID!, $baseArtifactID: ID, $name: String!,
    $digest: String!, $entityName: String!, $projectName: String!, $runName: String!,
    $manifestType: ArtifactManifestType!, $includeUpload: Boolean!) {
  createArtifactManifest(input: {artifactID: $artifactID, baseArtifactID: $baseArtifactID,
      name: $name, digest: $digest, entityName: $entityName, projectName: $projectName,
      runName: $runName, type: $manifestType}) {
    artifactManifest {
      id
      file {
        id
        uploadUrl @include(if: $includeUpload)
        uploadHeaders @include(if: $includeUpload)
      }
    }
  }
}
"""
CREATE_FILES: Final = """
mutation CreateArtifactFiles($input: CreateArtifactFilesInput!) {
  createArtifactFiles(input: $input) {
    files { edges { node { storagePath uploadUrl uploadHeaders artifact { id } } } }
  }
}
"""
COMMIT: Final = f"""
mutation CommitArtifact($artifactID: ID!) {{
  commitArtifact(input: {{artifactID: $artifactID}}) {{ artifact {{ {_ARTIFACT} }} }}
}}
"""
BY_ID: Final = f"query ArtifactByID($id: ID!) {{ artifact(id: $id) {{ {_ARTIFACT} }} }}"
LINK: Final = """
mutation LinkArtifact($input: LinkArtifactInput!) {
  result: linkArtifact(input: $input) { versionIndex }
}
"""
LINKED: Final = """
query FetchLinkedArtifacts($artifactID: ID!) {
  artifact(id: $artifactID) {
    artifactMemberships {
      edges {
        node {
          versionIndex
          artifactCollection { __typename name project { name entity { name } } }
        }
      }
    }
  }
}
"""
VERSIONS: Final = f"""
query ProjectArtifacts($entity: String!, $project: String!, $type: String!, $collection: String!,
    $cursor: String, $perPage: Int, $filters: JSONString) {{
  project(entityName: $entity, name: $project) {{
    artifactType(name: $type) {{
      artifactCollection(name: $collection) {{
        __typename
        id
        name
        description
        artifacts(after: $cursor, first: $perPage, filters: $filters) {{
          totalCount
          pageInfo {{ endCursor hasNextPage }}
          edges {{ version node {{ {_ARTIFACT} }} }}
        }}
      }}
    }}
  }}
}}
"""
MEMBER: Final = f"""
query ArtifactMembershipByName($entity: String!, $project: String!, $name: String!) {{
  project(name: $project, entityName: $entity) {{
    artifactCollectionMembership(name: $name) {{ versionIndex artifact {{ {_ARTIFACT} }} }}
  }}
}}
"""
COLLECTIONS: Final = """
query ArtifactTypeArtifactCollections($entity: String!, $project: String!, $type: String!,
    $cursor: String, $perPage: Int) {
  project(entityName: $entity, name: $project) {
    artifactType(name: $type) {
      artifactCollections(after: $cursor, first: $perPage) {
        pageInfo { endCursor hasNextPage }
        edges { node { __typename id name } }
      }
    }
  }
}
"""
FILES: Final = """
query ArtifactMembershipFiles($entity: String!, $project: String!, $collection: String!,
    $alias: String!, $fileNames: [String!], $cursor: String, $perPage: Int) {
  project(name: $project, entityName: $entity) {
    artifactCollection(name: $collection) {
      __typename
      artifactMembership(aliasName: $alias) {
        files(names: $fileNames, after: $cursor, first: $perPage) {
          pageInfo { endCursor hasNextPage }
          edges { node { name: displayName directUrl } }
        }
      }
    }
  }
}
"""
DELETE: Final = """
mutation DeleteArtifact($input: DeleteArtifactInput!) {
  result: deleteArtifact(input: $input) { artifact { id } }
}
"""
ADD_ALIASES: Final = """
mutation AddAliases($input: AddAliasesInput!) { result: addAliases(input: $input) { success } }
"""
DELETE_ALIASES: Final = """
mutation DeleteAliases($input: DeleteAliasesInput!) {
  result: deleteAliases(input: $input) { success }
}
"""
UNLINK: Final = """
mutation UnlinkArtifact($input: UnlinkArtifactInput!) {
  result: unlinkArtifact(input: $input) { success }
}
"""
UPDATE: Final = """
mutation UpdateArtifact($input: UpdateArtifactInput!) {
  result: updateArtifact(input: $input) { artifact { id } }
}
"""
UPDATE_COLLECTION: Final = """
mutation UpdateArtifactPortfolio($input: UpdateArtifactPortfolioInput!) {
  result: updateArtifactPortfolio(input: $input) { artifactCollection { __typename id } }
}
"""
